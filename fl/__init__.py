"""Federated learning on the server: what is true, what happens next, and the mathematics in between.

    lifecycle       states of run, round and assignment, and `next_step`: facts → what to do; no queries
    models          what is true, one module a thing, with the constraints in the database
    runs, devices,  the use cases: the only places that change state; one transaction each, its event recorded last
    updates
    coordination    `advance`: carries out the one step that a round's facts call for, once
    cohorts         who is selected for a round: pure, seeded
    strategies      how contributions become the next global model: torch alone, no Django
    events          the log of what happened; signals tell it after commit
    visibility      who may see which stream
    queries         reads for pages, API and snapshots
    api, views,     doors: they parse, call one use case, and answer
    admin

Below it lies only `edge`. It does not know sockets, nor who is listening.
"""
