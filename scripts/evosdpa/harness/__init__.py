"""What runs inside the measuring processes. Its code is part of every content key: it decides the numbers."""
