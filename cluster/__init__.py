"""The one door to Kubernetes: client, apply, list, watch, sync engine. Knows no domain; see `kinds`."""
