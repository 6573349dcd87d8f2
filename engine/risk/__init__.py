"""The pre-trade check: the question, who asks it, and a sample service that answers."""
