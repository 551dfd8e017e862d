"""What the kernel caches of the mount (names, attributes, sizes and pages), and how it stays true."""
