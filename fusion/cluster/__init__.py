"""Who is in the cluster: the cluster file and mDNS."""
