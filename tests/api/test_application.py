"""The app by itself."""


def test_the_app_attribute_is_lazy():
    from starlette.applications import Starlette

    import zerocost.api

    assert isinstance(zerocost.api.app, Starlette)
    assert zerocost.api.app is zerocost.api.app
