"""A server with accounts: people of each role, with passwords, sessions and API keys."""

from __future__ import annotations

from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from listening import Listening

from chatrlhf.app import App
from storage import accounts, sessions
from ui import passwords
from ui.server import create_server

OWN_ADDRESS = "http://127.0.0.1:7860"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "four words of {}"


def password_of(name: str) -> str:
    return PASSWORD.format(name)


class Team:
    """Adds people to an app's database, and asks its server as one of them."""

    def __init__(self, app: App, *, with_page: bool = False) -> None:
        self.app = app
        self.server = create_server(app, with_page=with_page)
        self.ids: dict[str, int] = {}

    def add(self, name: str, role: str = "rater") -> int:
        hashed = passwords.HASHER.hash(password_of(name))
        if not self.ids:
            assert role == "admin"
            person = accounts.add_first_account(self.app.db, name, hashed)
        else:
            person = accounts.add_account(self.app.db, name, role, hashed)
        self.ids[name] = person.id
        return person.id

    def stranger(self, base_url: str = OWN_ADDRESS, client: str = "10.0.0.9") -> TestClient:
        """A client that shows nothing."""
        return TestClient(
            self.server,
            base_url=base_url,
            raise_server_exceptions=False,
            follow_redirects=False,
            client=(client, 40000),
        )

    def browser(self, name: str, **options: str) -> TestClient:
        """A client that is signed in by name and password."""
        client = self.stranger(**options)
        body = {"name": name, "password": password_of(name)}
        answer = client.post("/api/session", json=body)
        assert answer.status_code == 200, answer.text
        return client

    def program(self, name: str) -> TestClient:
        """A client with an API key."""
        _, key = sessions.make_key(self.app.db, self.ids[name], "test")
        client = self.stranger()
        client.headers["Authorization"] = f"Bearer {key}"
        return client


class ServedTeam(Team):
    """A team whose server listens, in a thread, for browsers."""

    def __init__(self, app: App) -> None:
        super().__init__(app, with_page=True)
        self._listening = Listening(self.server)
        self.url = self._listening.url

    def stop(self) -> None:
        self.app.end_streams()
        self._listening.stop()
