"""One request, start to finish. Read this first.

`Answers.open` (`admitting.py`) admits a request: the model is resolved, parameters that the
engine cannot honour are refused, history is found, the prompt is checked against the context
window, and the run is kept. The `Answer` it returns (`running.py`) thinks in a task of its own
and hands out events in batches: whatever is there when the reader asks. Each batch is stored
before it is released, so a reader who sees an event can always find it again.

Exactly one `RunFinished` ends every answer: when it is complete, when the engine fails, when it
is cancelled, when the server stops, when the disk is full. This is the only room that sees
everything; it knows neither JSON nor HTTP.
"""

from ouzel.answer.admitting import Answers
from ouzel.answer.compacting import NOW, Compacted
from ouzel.answer.running import Answer

__all__ = ["NOW", "Answer", "Answers", "Compacted"]
