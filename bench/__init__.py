"""`./dev bench`: what the whole system takes for what people ask of it, each figure beside its floor.

Everything runs over HTTP against real processes with production settings; nothing of OpenCrane is called directly, but
for two things that a client cannot see: seeding, and how many SQL queries a request takes.
"""
