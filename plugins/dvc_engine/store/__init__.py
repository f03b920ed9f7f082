"""Where things are kept: commits and refs in Git, bytes in DVC's cache and remote, clones on a worker's disk.

repository  where nights are published: the checkout's own repository, or a remote of it
web         pages of commits, where the repository has some
commit      a project's files at one commit, without a work tree
history     what earlier nights made of every stage
snapshot    the commit that a night runs: HEAD, or a changed work tree
ignored     what Git does not take at a commit, and the lines by which it ignores
params      what a run has instead of values in params.yaml
lease       one night at a time, by the compare-and-swap of a Git ref
workspace   a private clone for one task, one shared cache
submodules  what Git has of other repositories in a checkout, and in a clone
objects     objects of the cache, hashed where DVC trusts
uncached    outs that DVC keeps no object of, kept for other clones
written     what is written of a night for others to read
gc          what of the cache may go
"""
