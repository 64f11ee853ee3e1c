"""Several front ends: processes that take connections beside the one that owns the models.

Theory of operation
- The *owner* is the server as it is without front ends: it has the models, and all that there must
  be one of (life-cycle, sequences, roll-outs, jobs, registrations, settings, statistics).
- A *front end* listens on the same ports (SO_REUSEPORT). Whatever it cannot answer as the owner
  would, it passes on to the owner, over Unix sockets that speak HTTP and gRPC as all others do.
- What it answers by itself are requests to models in its *lane*: native code without any state
  between requests, which it maps from the same file as the owner. The owner offers models, and
  retracts them before it tells anybody of a change; a front end that has not got a model, or not
  any more, passes requests on. So an answer never depends on who took the connection.
- Counts of the lane are added to the owner's every second, and before anybody reads them.
"""
