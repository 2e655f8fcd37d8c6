"""The app by itself."""


def test_the_app_is_made_when_it_is_asked_for():
    from starlette.applications import Starlette

    import zerocost.api

    assert isinstance(zerocost.api.app, Starlette)
    assert zerocost.api.app is zerocost.api.app
