"""The chaos of the ledger: senders are killed, the wire and the database misbehave, and an oracle looks at the end."""
