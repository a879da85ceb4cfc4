"""Other packages behind our contracts; each is imported only when it is used."""
