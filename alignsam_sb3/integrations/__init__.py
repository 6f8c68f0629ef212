"""Where others work: CVAT, Label Studio, the Hugging Face Hub. Each module needs its own package, which is an extra of ours."""
