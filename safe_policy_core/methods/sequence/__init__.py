"""What DT, CDT and QPT share: the conditional transformer, its training and its acting."""
