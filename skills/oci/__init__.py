"""The OCI store: skill bundles as OCI 1.1 artifacts in a registry, over plain HTTP. Knows settings, but no rows."""
