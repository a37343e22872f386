"""SAS: decision transformers that align themselves at test time by a prompt of their own imagination (papers/sas.txt).

A checkpoint of DT, CDT or QPT is given heads that predict what comes next, trained on its frozen features (`learner`,
`heads`). At the start of an episode it imagines (`imagination`), ranks what it imagined by energy and picks a prompt
(`alignment`, Algorithm 1), which stands before the episode in the transformer's context (`policy`).
"""
