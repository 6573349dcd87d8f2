"""Clusters of Redis and RabbitMQ on loopback, for tests."""
