"""Deployments: kits, keys and certificates, checks, and the processes of a local deployment."""
