%% A TLS client or server on Erlang's ssl: peer.escript client|server PORT, the rest from the environment.
-mode(compile).

main([Role, Port]) ->
    {ok, _} = application:ensure_all_started(ssl),
    logger:set_primary_config(level, none),
    case Role of
        "client" -> client(list_to_integer(os:getenv("CONNECTIONS")), list_to_integer(Port));
        "server" -> server(list_to_integer(Port))
    end.

options() ->
    [{versions, [list_to_atom("tlsv" ++ os:getenv("TLS"))]}, {mode, binary}]
        ++ [{cacertfile, os:getenv("CA")} || set("CA")]
        ++ [{certfile, os:getenv("CERT")} || set("CERT")]
        ++ [{keyfile, os:getenv("KEY")} || set("KEY")].

set(Name) -> os:getenv(Name, "") =/= "".

client(0, _) -> ok;
client(Left, Port) ->
    Tickets = [{session_tickets, auto} || os:getenv("TLS") =:= "1.3"],
    Alpn = [{alpn_advertised_protocols, [list_to_binary(os:getenv("ALPN"))]} || set("ALPN")],
    Options = options() ++ Tickets ++ Alpn ++ [{verify, verify_peer}, {server_name_indication, "localhost"},
        {active, true}],
    case ssl:connect("127.0.0.1", Port, Options, 10000) of
        {ok, Conn} ->
            Sent = ssl:send(Conn, "hello\n"),
            receive
                {ssl, Conn, Data} -> io:format("echo: ~s", [Data]);
                {ssl_error, Conn, Reason} -> io:format("refused: ~0p~n", [Reason]);
                {ssl_closed, Conn} -> io:format("refused: ~0p, closed~n", [Sent])
            after 10000 -> io:format("refused: no answer~n")
            end,
            ssl:close(Conn);
        {error, Reason} -> io:format("refused: ~0p~n", [Reason])
    end,
    client(Left - 1, Port).

server(Port) ->
    Verify = [{verify, verify_peer} || set("CA")] ++ [{fail_if_no_peer_cert, true} || set("CA")],
    Crl = case set("CRL") of
        true ->
            ok = ssl_crl_cache:insert({file, os:getenv("CRL")}),
            [{crl_check, true}, {crl_cache, {ssl_crl_cache, {internal, []}}}];
        false -> []
    end,
    Tickets = [{session_tickets, stateless} || os:getenv("TLS") =:= "1.3"],
    Alpn = [{alpn_preferred_protocols, [list_to_binary(os:getenv("ALPN"))]} || set("ALPN")],
    {ok, Listener} = ssl:listen(Port, options() ++ Verify ++ Crl ++ Tickets ++ Alpn ++ [{ip, {127, 0, 0, 1}}, {reuseaddr, true}, {active, false}]),
    accept(Listener).

accept(Listener) ->
    {ok, Raw} = ssl:transport_accept(Listener),
    case ssl:handshake(Raw, 10000) of
        {ok, Conn} -> echo(Conn);
        {error, Reason} -> io:format("refused: ~0p~n", [Reason])
    end,
    accept(Listener).

echo(Conn) ->
    case ssl:recv(Conn, 0) of
        {ok, Data} -> ssl:send(Conn, Data), echo(Conn);
        {error, closed} -> ok;
        {error, Reason} -> io:format("refused: ~0p~n", [Reason])
    end.
