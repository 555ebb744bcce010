"""How the stand-in models were made; run by ``cltm pretrain``, kept with recipe and log in ``cltmlib/models``."""
