"""BitBake's own code against ours: the real ``bb`` package, never a stand-in."""
