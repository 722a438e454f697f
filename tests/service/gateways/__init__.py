"""The gateways against their simulators: real sockets, real processes, independent crypto."""
