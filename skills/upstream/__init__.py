"""Reading what third-party sources offer. Nothing of theirs is run, and nothing that they say is believed."""
