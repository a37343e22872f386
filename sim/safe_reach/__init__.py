"""SafeReach (FOSP section D.1): reach the red target with an FR3 without touching the green obstacles.

`environment` is the fast way in, `server` the same scene behind the libfranka protocol.
"""
