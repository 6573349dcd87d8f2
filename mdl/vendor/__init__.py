"""A stand-in for the vendor: a server that speaks its protocol around the simulator or a tape."""
