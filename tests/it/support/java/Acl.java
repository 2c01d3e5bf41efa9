import java.util.ArrayList;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/**
 * Forbids everybody something that can be done with a topic, or permits everything again:
 * {@code Acl.java BROKERS forbid|hide|close|uncreatable|permit TOPIC}, or with a group, {@code expel|admit GROUP}.
 *
 * <p>{@code forbid} is to write, {@code hide} all, {@code close} to read; {@code uncreatable} is to create any topic.
 * {@code expel} is to be a member.
 */
public class Acl {
    public static void main(String[] args) throws Exception {
        var group = new ResourcePattern(ResourceType.GROUP, args[2], PatternType.LITERAL);
        var topic = new ResourcePattern(ResourceType.TOPIC, args[2], PatternType.LITERAL);
        // Who may create in the cluster may create this topic.
        var cluster = new ResourcePattern(ResourceType.CLUSTER, "kafka-cluster", PatternType.LITERAL);
        try (var admin = Admin.create(Map.<String, Object>of("bootstrap.servers", args[0]))) {
            switch (args[1]) {
                case "expel" -> deny(admin, AclOperation.READ, group);
                case "admit" -> permit(admin, group);
                case "permit" -> permit(admin, topic, cluster);
                case "hide" -> deny(admin, AclOperation.ALL, topic);
                case "forbid" -> deny(admin, AclOperation.WRITE, topic);
                case "close" -> deny(admin, AclOperation.READ, topic);
                case "uncreatable" -> deny(admin, AclOperation.CREATE, topic, cluster);
                default -> throw new IllegalArgumentException(args[1]);
            }
        }
    }

    private static void deny(Admin admin, AclOperation operation, ResourcePattern... resources) throws Exception {
        var rules = new ArrayList<AclBinding>();
        for (var resource : resources) {
            // What has a rule at all is closed to all that none permits.
            rules.add(new AclBinding(resource, entry(AclOperation.ALL, AclPermissionType.ALLOW)));
            rules.add(new AclBinding(resource, entry(operation, AclPermissionType.DENY)));
        }
        admin.createAcls(rules).all().get();
    }

    private static void permit(Admin admin, ResourcePattern... resources) throws Exception {
        var denials = new AccessControlEntryFilter(null, null, AclOperation.ANY, AclPermissionType.DENY);
        var filters = new ArrayList<AclBindingFilter>();
        for (var resource : resources) {
            filters.add(new AclBindingFilter(resource.toFilter(), denials));
        }
        admin.deleteAcls(filters).all().get();
    }

    private static AccessControlEntry entry(AclOperation operation, AclPermissionType permission) {
        return new AccessControlEntry("User:*", "*", operation, permission);
    }
}
