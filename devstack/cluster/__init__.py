"""A small Kubernetes API server for trying OpenCrane out on one machine. Never for production.

It speaks enough of the API for the official Python client and kubectl, keeps everything in one SQLite file and plays
just enough of the controllers that a fleet looks alive. Where it differs from a real API server, that is a defect here.
"""
