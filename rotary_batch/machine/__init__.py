"""What else goes on in this machine: what other programs need, who uses the card, what energy it takes.  No torch."""
