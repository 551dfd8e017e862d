"""The interface that both transports implement, and the parts they share."""
