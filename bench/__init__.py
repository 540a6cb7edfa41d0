"""Measures how fast Ouzel is, as ratios against a named baseline in the same run.

`python -m bench` from the checkout, or `make bench`. It belongs to the repository, not to the
package: nothing in `src` knows it. It drives real processes over HTTP, as clients do.

    arithmetic   quantiles, pairs, aims: numbers in, numbers out
    machine      what it ran on, and how busy that was
    wire         is this reply whole and right?
    load         the load generator, a process of its own
    baseline     a bare Starlette server that validates nothing, to compare with
    processes    starts servers, asks what they use, stops them
    suite_*      one thing to measure each: rows for the table
    report       rows -> a table and a JSON file
"""
