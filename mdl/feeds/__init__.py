"""The sources a listener can follow: the vendor, tapes, the simulator, the built-in exchange."""
