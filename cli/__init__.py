"""The `opencrane` command: everything that a person does with the API, from a terminal or a script.

It speaks HTTP to `/api/v1` and knows nothing else of the server. Modules are imported when a command needs them, so
that `opencrane --help` stays quick; `frame` and `nouns` are all that every start loads.
"""

__version__ = "0.1.0"
