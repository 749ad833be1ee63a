"""The whole story in one command: an agent loop directly and through wsproxy, side by side.

Simulator and proxy are processes of their own, started as a user would start them, so nothing
here imports the rest of wsproxy and what is measured is what is used.
"""
