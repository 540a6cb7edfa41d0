"""Think, call tools, think again: from a conversation to a finished answer.

`context` decides what the engine is shown, `run` opens its turns, `output` turns what it says
into items and events. The loop knows neither storage nor HTTP.
"""
