"""How much is measured, where more than one module must know it."""

MILLION = 1_000_000
WINDOWS = (8, 32)  # DELIVERY_WINDOW, and as many connections, of one sender
SENDERS = (1, 2)
