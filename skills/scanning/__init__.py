"""What looks into bundles: a pipeline of scanners, run in a process of its own that may do next to nothing.

`sandbox` is what the rest of the product uses. Everything else here runs inside the sandbox, without Django, so nothing
in this package but `sandbox` and `findings` may be imported elsewhere.
"""
