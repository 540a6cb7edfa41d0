"""The shared nouns and promises of Ouzel.

Nothing here imports another room or a third-party library: what a conversation is made of
(`items`), what was asked (`request`), what a run emits (`events`), what an engine is shown and
says (`turns`), which parts the server is assembled from (`contracts`) and what may go wrong
(`errors`).
"""
