"""The scanners, one module each; `pipeline` says which run."""
