"""The DomainBed protocol: data sets, splits, hyper-parameters, jobs, model selection and tables, to the bit."""
