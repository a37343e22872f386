"""Velocity filters: how may the target move? One class per limit, all with the interface of `filter.VelocityFilter`."""
