"""The explorer: a page to look at a model with, by the functions of the notebooks.

    python -m helpers app                 # serve it; `make app` does the same
    page.Page(root="…").widget            # in a notebook of your own

`choice` reads what a visitor chose, `state` computes and needs no browser, `tabs` shows, `page` puts the tabs together and
`serve` starts Voilà. Everything shown exists as static output too: the lessons, `helpers.report` and the downloads.
"""
