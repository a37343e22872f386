"""Every fault, in the order in which they are injected."""

from tests.faults import command_faults, process_faults, system_faults

FAULTS = (*command_faults.FAULTS, *process_faults.FAULTS, *system_faults.FAULTS)
