"""Guards: may the arm move at all? One class per watchdog, all with the interface of `guard.Guard`."""
