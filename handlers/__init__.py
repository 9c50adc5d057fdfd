"""FastStream consumers that act: deciders append events, effects do one thing in the world. Read decider.py first."""
