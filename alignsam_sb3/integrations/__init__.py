"""Where others work. Each module needs its own package, which is an extra of ours."""
