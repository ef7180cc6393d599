"""`trfmoe drill`: faults and attacks, played in process and on real processes."""
