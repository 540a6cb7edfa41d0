"""Measures how fast Ouzel is, as ratios against a named baseline in the same run, and on request
how well it does what small weights do not do by themselves: call tools, keep to a schema, be done
in time.

`python -m bench` from the checkout, or `make bench`. It belongs to the repository, not to the
package: nothing in `src` knows it. It drives real processes over HTTP, as clients do.

    arithmetic   quantiles, pairs, aims: numbers in, numbers out
    machine      what it ran on, and how busy others kept that
    wire         is this reply whole and right?
    load         the load generator, a process of its own
    streamed     one stream, and when each piece of it came
    baseline     a bare Starlette server that validates nothing, to compare with
    scripted     what the scripted engine replies, and the requests that ask for it
    processes    starts servers, asks what they use, stops them
    engine_host  the real server, telling where its engine is
    suite        what a suite is; suite_*: one thing to measure each, rows for the table
    asking       suites of cases: a server on real weights, the official SDK, a few at a time
    checked      is this JSON valid for that schema? is this answer whole?
    tool_tasks   tasks with tools, from a file, and what counts as right
    report       rows -> a table and a JSON file
    store        the store alone, without a server: python bench/store.py
"""
