"""Speed and memory against what people would use instead."""
