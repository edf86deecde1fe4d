"""The protocol of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021), to the bit: data sets, jobs, selection, tables."""
