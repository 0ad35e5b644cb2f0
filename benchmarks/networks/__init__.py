"""Clusters over slow, late and lossy networks between network namespaces of this machine."""
